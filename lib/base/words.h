/* Words on their way to a person or a log: kept on one line and harmless to a terminal. */
#ifndef MOE_BASE_WORDS_H
#define MOE_BASE_WORDS_H

#include <stdatomic.h>
#include <stddef.h>

/* The length of the UTF-8 sequence at p, 1 to 4; 0 when it is not valid or longer than n. */
int moe_utf8_len(const char *p, size_t n);

/* In place: control characters become '?'; a sequence that was cut off at the end goes. */
void moe_words_clean(char *s);

/* Which of `names` (NULL-terminated) was meant by a word that is none of them: the one that fewest letters have to be changed,
 * added, left out or swapped for, capitals no matter; one that begins with the word goes first.  NULL: none is near. */
const char *moe_nearest(const char *word, const char *const *names);

/* Is a progress bar on the terminal now?  Whoever prints a line wipes it first. */
extern atomic_bool moe_bar_drawn;
#define MOE_BAR_WIPE "\r\033[K"

#endif
